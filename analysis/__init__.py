"""From trajectories to numbers: planes, surfaces, operators, spectra, distances, statistics.

Nothing is imported here, so that `analysis.results` and `analysis.archive` work where torch is not installed.
"""
