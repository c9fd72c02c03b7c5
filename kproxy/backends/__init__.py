"""How the wanted state is said to a kernel: one package per way."""
