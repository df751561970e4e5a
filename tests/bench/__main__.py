"""`make bench`: every benchmark, one after the other. Figures are of this machine; read the ratios."""

from tests.bench import cold_start, consumers, imports, ingest_memory, read_units, stream_overhead, write_units

if __name__ == "__main__":
    cold_start.main()
    imports.main()
    stream_overhead.main()
    write_units.main()
    read_units.main()
    consumers.main()
    ingest_memory.main()
