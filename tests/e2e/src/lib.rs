//! Suites that use a real cluster as its users do: through kubectl, the command line and signals.
