"""Prints the rows of a Parquet file as JSON arrays, one per line; times as milliseconds since 1970."""

import json
import sys

import duckdb

relation = duckdb.connect().execute("SELECT * FROM read_parquet($1) LIMIT 0", [sys.argv[1]])
names = [column[0] for column in relation.description]
columns = [f'epoch_ms("{name}")' if name == "timestamp" else f'"{name}"' for name in names]
rows = duckdb.connect().execute(f"SELECT {', '.join(columns)} FROM read_parquet($1)", [sys.argv[1]])
print(json.dumps(names))
while row := rows.fetchone():
    print(json.dumps(row))
