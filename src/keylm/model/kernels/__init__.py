"""What bfloat16 training on a CPU does between matrix products, in few passes over memory."""
