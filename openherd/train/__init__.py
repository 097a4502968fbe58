"""Training: from raw text and conversations to a model of one's own. Importing this package loads no torch.

What reads and encodes data (rows, sources, encoding, prepare, doctor, preview, tokenizer_training) runs without torch.
"""
