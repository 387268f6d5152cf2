"""How fast the library is beside what a reader would take instead, in one process.

``python -m benchmarks`` runs every case and writes a record. A case is one computation
done by several sides. First each side has to give what ours gives; then they take turns
on the clock, so that whatever slows the machine down slows all of them.
"""
