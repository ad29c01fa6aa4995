-- What the balancing did: one row.
-- in   $balanced   parquet files of balance_pairs.sql
-- out  matched (pairs), kept (pairs), expected (sum of keep_probability, in pairs), enters_at_most (the largest of any pair)
select
    count(*) as matched,
    count(*) filter (where kept) as kept,
    coalesce(sum(keep_probability::decimal(18, 15))::double, 0) as expected,
    max(enters_at) as enters_at_most,
from read_parquet($balanced)
