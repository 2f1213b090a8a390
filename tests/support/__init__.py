"""What tests of several packages and benchmarks share: fakes, foreign peers, folders and ports."""
