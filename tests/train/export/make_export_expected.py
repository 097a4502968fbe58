"""What transformers makes of an exported model: token ids, a rendered chat, logits. Run in the oracle's Python:

python -c "from tests.train.export import small_runs; small_runs.export_folder('OUT')"   # openherd's
ORACLE/bin/python tests/train/export/make_export_expected.py OUT                         # with transformers
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch
import transformers

TEXTS = ("Once upon a time there was a cat.", "naïve café\n\n  12345 日本 <|eot_id|>", "<|begin_of_text|>the  mill")
CHAT = [{"role": "user", "content": "Who took the cat?"}, {"role": "assistant", "content": " The third son. "}]
EVERY = 16  # of the vocabulary's logits one is kept


def main(folder: str) -> None:
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager")
    ids = tokenizer(TEXTS[0])["input_ids"]
    with torch.no_grad():
        logits = model(torch.tensor([ids])).logits[0]
    expected = {
        "made_by": f"transformers {transformers.__version__}, torch {torch.__version__}",
        "ids": {text: tokenizer(text)["input_ids"] for text in TEXTS},
        "chat": tokenizer.apply_chat_template(CHAT, tokenize=False, add_generation_prompt=True),
        "eos_token_ids": model.generation_config.eos_token_id,
        "logits": [[round(value, 5) for value in row] for row in logits[:, ::EVERY].tolist()],
    }
    path = Path(__file__).parent / "expected_export.json"
    path.write_text(json.dumps(expected, ensure_ascii=True) + "\n")
    print(f"{path}: {expected['made_by']}")


if __name__ == "__main__":
    main(sys.argv[1])
