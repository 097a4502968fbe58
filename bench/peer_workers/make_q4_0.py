"""IN.gguf as Q4_0, by llama.cpp's own quantiser (`llama-cpp-python`): the file on which batches are compared."""

import ctypes
import sys

import llama_cpp

source, target = sys.argv[1:]
llama_cpp.llama_backend_init()
params = llama_cpp.llama_model_quantize_default_params()
params.ftype = llama_cpp.LLAMA_FTYPE_MOSTLY_Q4_0
params.allow_requantize = True
if llama_cpp.llama_model_quantize(source.encode(), target.encode(), ctypes.byref(params)) != 0:
    sys.exit(f"llama.cpp cannot quantise {source}")
