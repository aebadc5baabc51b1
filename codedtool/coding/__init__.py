"""Floor 1: words, schemes and the solvers that find them; knows numpy, nothing above."""
