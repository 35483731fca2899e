"""Channel groups, sub-models and the arithmetic that cuts, joins and counts them."""
