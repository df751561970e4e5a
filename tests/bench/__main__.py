"""`make bench`: every benchmark, one after the other. Figures are of this machine; read the ratios."""

from tests.bench import (
    buffered,
    cold_start,
    consumers,
    first_delta,
    imports,
    ingest_memory,
    long_life,
    many_streams,
    read_units,
    runaway,
    write_units,
)

if __name__ == "__main__":
    cold_start.main()
    imports.main()
    first_delta.main()
    buffered.main()
    long_life.main(1000)
    many_streams.main(100, 5, 20)
    write_units.main()
    read_units.main()
    consumers.main()
    ingest_memory.main()
    runaway.main()
