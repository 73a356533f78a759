"""Cases against Cases: numbers with their protocol, as one results file."""
