"""CPU kernels for the operations between matrix products, in bfloat16, in few passes over memory."""
