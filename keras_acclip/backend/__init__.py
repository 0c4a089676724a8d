"""How a Keras backend carries out an optimizer step, and what sparse gradients it knows."""
