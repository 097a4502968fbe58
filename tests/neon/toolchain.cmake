# Debian's cross compiler; tests run under qemu's user emulation. SYSROOT in the environment holds an AArch64 Python.
set(CMAKE_SYSTEM_NAME Linux)
set(CMAKE_SYSTEM_PROCESSOR aarch64)
set(CMAKE_CXX_COMPILER aarch64-linux-gnu-g++)
set(CMAKE_CROSSCOMPILING_EMULATOR qemu-aarch64 -L $ENV{SYSROOT})
# Python's header of its configuration lies in a folder named by the processor; all other headers are the compiler's own.
set(CMAKE_CXX_FLAGS_INIT "-idirafter $ENV{SYSROOT}/usr/include")
