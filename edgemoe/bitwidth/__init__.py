"""Expert-wise bitwidth: which quantisation type each expert gets, and the packing of a model."""
