"""The model that is trained: the engine's own forward pass over PyTorch's operations.

`decoder.Decoder` holds the weights under their canonical names and calls `engine.model.block`; `torch_ops.TorchOps` is
what that function's operations mean in PyTorch. So a family that the engine can run is a family that can be trained,
and both compute the same function because they are the same function.
"""
