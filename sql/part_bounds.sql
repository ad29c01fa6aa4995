-- The first and the last part that the rows of a file are of.
-- in   $ruled   parquet as in ruled_pairs.sql
-- out  first_part, last_part; one row, null where the file has no rows
select min(part) as first_part, max(part) as last_part,
from read_parquet($ruled)
