"""The same training code on one CPU, one GPU or many, by PyTorch's own engine: torchrun, FSDP2, DTensor, DCP."""
