-- One row per candidate pair, with the first rule that drops it (null = kept) and the value that decided it.
-- in   $ruled             parquet of one part, as in ruled_pairs.sql
--      $copy_numbers      parquet files, one per bucket: place, copy_number, as in copy_numbers.sql
--      $first_part, $last_part   of $ruled, as in part_bounds.sql: constants, for only by these are row groups passed over
--      $frequent          parquet files, one per bucket: caption_key, images, as in frequent_captions.sql
--      $captioned         parquet files, one per bucket: url_key, captions, as in captioned_images.sql
-- out  part, source, row, pair_id, drop_reason, decided_by; unique on (part, row), in this order
-- The joins hold the exceptions, which are fewer than the rows. hex() writes no leading zeros and format() takes twice as long,
-- so it is kept for the sixteenth part of the pairs that have one.
with ruled as (
    select *, (part::ubigint << 40) | row::ubigint as place,
    from read_parquet($ruled)
),

copies as (
    select place, copy_number,
    from read_parquet($copy_numbers)
    where place >= $first_part::ubigint << 40 and place < ($last_part::ubigint + 1) << 40
)

select
    ruled.part,
    ruled.source,
    ruled.row,
    case
        when ruled.pair_upper >= 1::ubigint << 60 then lower(hex(ruled.pair_upper::uhugeint << 64 | ruled.pair_lower))
        else format('{:016x}{:016x}', ruled.pair_upper, ruled.pair_lower)
    end as pair_id,
    case
        when ruled.rule_reason is not null then ruled.rule_reason
        when copy_numbers.copy_number is not null then 'duplicate_pair'
        when frequent.images is not null then 'frequent_caption'
        when captioned.captions is not null then 'many_captions'
    end as drop_reason,
    case
        when ruled.rule_reason is not null then ruled.rule_value
        when copy_numbers.copy_number is not null then copy_numbers.copy_number::varchar
        when frequent.images is not null then frequent.images::varchar
        when captioned.captions is not null then captioned.captions::varchar
    end as decided_by,
from ruled
left join copies as copy_numbers on ruled.place = copy_numbers.place
left join read_parquet($frequent) as frequent on ruled.caption_key = frequent.caption_key
left join read_parquet($captioned) as captioned on ruled.url_key = captioned.url_key
order by ruled.part, ruled.row
