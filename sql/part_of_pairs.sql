-- One part of the selected pairs, cut by row number.
-- in   $selected      parquet ordered by pair_id: the rows of selected_pairs.sql
--      $first_row     number of the first row, from 0
--      $rows          rows of the part
-- out  the same columns, ordered by pair_id
select *,
from read_parquet($selected)
order by pair_id
limit $rows offset $first_row
