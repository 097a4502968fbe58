"""herd convert: a model from one layout into another, tensor by tensor, proven to compute the same."""
