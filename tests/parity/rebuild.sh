#!/bin/sh
# Rebuild the committed expected values of the parity tests with the oracles themselves (see make parity).
#   rebuild.sh PYTHON MODEL [WIKITEXT]
# PYTHON has torch, transformers, peft, trl, gguf, sentencepiece with protobuf, and llama-cpp-python; MODEL is the default
# model's file; WIKITEXT is WikiText-2's raw test text. OPENHERD_PYTHON is openherd's own with the training extra (python).
set -eu
python=$1 model=$2 wikitext=${3-}
export PYTHONPATH=.

for script in parity/make_rope_expected parity/make_llama_parity parity/make_lora_expected parity/make_chat_expectations \
    parity/make_reader_cases parity/make_rounding_errors parity/make_family_parity parity/make_family_defaults \
    train/make_gradients_expected train/make_trl_expected; do
    echo "$script"
    "$python" "tests/$script.py"
done
echo train/export/make_export_expected
exported=$(mktemp -d)
trap 'rm -rf "$exported"' EXIT
"${OPENHERD_PYTHON:-python}" -c "
import sys
from tests.train.export import small_runs
small_runs.export_folder(sys.argv[1])" "$exported/model"
"$python" tests/train/export/make_export_expected.py "$exported/model"
echo make_converted
# LLAMA_CPP_CONVERTER: llama.cpp's convert_hf_to_gguf.py; without it the file that it made is not rebuilt.
"$python" tests/parity/make_converted.py ${LLAMA_CPP_CONVERTER:+"$LLAMA_CPP_CONVERTER"}
echo make_family_converted
"$python" tests/parity/make_family_converted.py
echo make_tokenizer_cases
"$python" tests/parity/make_tokenizer_cases.py
echo make_reference_ids
"$python" tests/parity/make_reference_ids.py "$model"
if [ -n "$wikitext" ]; then
    echo "rebuilding default_model"
    "$python" tests/parity/make_default_model_expected.py "$model" "$wikitext"
else
    echo "default_model_expected.json is NOT rebuilt: that needs make parity WIKITEXT=FILE (WikiText-2's raw test text)"
fi
