#!/bin/sh
# sysroot.sh FOLDER: unpacks Debian's AArch64 Python with its libraries and headers there, without root and without a change
# to this system: apt works on lists and a (empty) status of its own. Takes the sources that this system has.
set -eu
mkdir -p "$1"
folder=$(cd "$1" && pwd)
apt=$folder/apt
mkdir -p "$apt/lists/partial" "$apt/archives/partial"
: >"$apt/status"
cat >"$apt/apt.conf" <<END
APT::Architecture "arm64";
APT::Architectures { "arm64"; };
APT::Install-Recommends "false";
APT::Sandbox::User "root";
Debug::NoLocking "true";
Dir::State "$apt";
Dir::State::status "$apt/status";
Dir::Cache "$apt";
END
export APT_CONFIG="$apt/apt.conf"
apt-get update -qq
apt-get install -qq -y --download-only python3 libpython3-dev libstdc++6
for package in "$apt"/archives/*.deb; do dpkg -x "$package" "$folder"; done
rm -rf "$apt"
