#!/bin/sh
# Rebuild the committed expected values of the parity tests with the oracles themselves (see make parity).
#   rebuild.sh PYTHON MODEL [WIKITEXT]
# PYTHON has torch, transformers, peft, gguf and llama-cpp-python; MODEL is the default model's file; WIKITEXT is
# WikiText-2's raw test text.
set -eu
python=$1 model=$2 wikitext=${3-}
export PYTHONPATH=.

for script in rope llama lora; do
    echo "rebuilding $script"
    "$python" "tests/parity/$(ls tests/parity | grep "^make_${script}_")"
done
if [ -n "$wikitext" ]; then
    echo "rebuilding default_model"
    "$python" tests/parity/make_default_model_expected.py "$model" "$wikitext"
else
    echo "default_model_expected.json is NOT rebuilt: that needs make parity WIKITEXT=FILE (WikiText-2's raw test text)"
fi
