"""What is measured and never proved: base networks to measure on, accuracy, and the data sets at hand."""
