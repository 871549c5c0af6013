"""Fair and unfair benchmarks: intervals of ratios, simulated repetitions, recorded calls, equal quality."""
