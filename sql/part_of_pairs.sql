-- One part of the selected pairs, cut by row number; only that part of the file is read.
-- in   $selected      parquet ordered by pair_id: the rows of selected_pairs.sql
--      $first_row     number of the first row, from 0
--      $rows          rows of the part
-- out  the same columns, ordered by pair_id
select * exclude (file_row_number),
from read_parquet($selected, file_row_number = true)
where file_row_number >= $first_row and file_row_number < $first_row + $rows
order by pair_id
