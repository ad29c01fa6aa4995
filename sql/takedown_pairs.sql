-- The selected pairs in the form in which blocked_pairs.sql looks at pairs; no caption is looked at.
-- in   $selected   parquet: pair_id (unique), url_norm, host
-- out  part (0), row (from 0), pair_id, url_norm, host, caption_key (null); unique on row
select
    0 as part,
    file_row_number as row,
    pair_id,
    url_norm,
    host,
    null::varchar as caption_key,
from read_parquet($selected, file_row_number = true)
