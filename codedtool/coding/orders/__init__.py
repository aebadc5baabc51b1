"""Which class gets which codeword: rows ordered or chosen together with other schemes, or by similarity of classes."""
