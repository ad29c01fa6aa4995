-- The number of every copy that does not stand: 2 is the second occurrence of its pair.
-- in   $copies   parquet as in later_copies.sql
-- out  place, copy_number; unique on place, in this order: who reads those of one part passes over all other row groups
-- The only window of the chain, and only over these rows.
select
    place,
    1 + row_number() over (partition by pair_upper, pair_lower order by place) as copy_number,
from read_parquet($copies)
order by place
