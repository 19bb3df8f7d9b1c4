"""What the project's figures come from: ``python -m benchmarks`` lists the benchmarks, each a module here."""
