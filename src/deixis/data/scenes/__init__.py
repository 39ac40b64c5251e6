"""Generated scenes: pictures, clips and phrases drawn from a seed."""

PREFIX = "scenes:"
"""How a generated data set is named in place of a path: `scenes:split=demo_train,count=160,seed=1`."""
