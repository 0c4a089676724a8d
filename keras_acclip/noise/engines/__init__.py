"""What evaluates gradients at fixed weights, on TensorFlow, for Keras 2 and on JAX.

`choose.choose` picks the parts that suit a model; each loads the framework that it needs.
"""
