-- A few images that were dropped for another one, each with the one that stays and the places of both in the downloads.
-- in   $verdicts     parquet as in image_verdicts.sql
--      $results      parquet files as in download_results.sql
--      $taken_down   parquet: pair_id, as in taken_down.sql: neither may be one of these
--      $per_reason   pairs of images of each reason, at most
-- out  drop_reason (near_duplicate or duplicate_image), and of the kept and the dropped: *_pair_id, *_url, *_caption, *_size (of the original, in
--      pixels), *_part (number of the file in $results), *_tar, *_image_offset, *_stored_bytes; near duplicates first, by a hash
with chosen as (
    select
        verdicts.drop_reason,
        unnest(
            arg_min({'dropped': verdicts.pair_id, 'kept': verdicts.decided_by}, md5(verdicts.pair_id), $per_reason)
        ) as pair,
    from read_parquet($verdicts) as verdicts
    anti join read_parquet($taken_down) as gone on verdicts.pair_id = gone.pair_id
    anti join read_parquet($taken_down) as gone on verdicts.decided_by = gone.pair_id
    where verdicts.drop_reason in ('near_duplicate', 'duplicate_image')
    group by verdicts.drop_reason
),

images as (
    select
        verdicts.pair_id,
        verdicts.url,
        verdicts.caption,
        format('{}x{}', verdicts.original_width_px, verdicts.original_height_px) as size,
        results.file_index as part,
        results.tar,
        results.image_offset,
        results.stored_bytes,
    from read_parquet($verdicts) as verdicts
    inner join read_parquet($results) as results on verdicts.pair_id = results.pair_id
    where results.status = 'ok'
)

select
    chosen.drop_reason,
    kept.pair_id as kept_pair_id,
    kept.url as kept_url,
    kept.caption as kept_caption,
    kept.size as kept_size,
    kept.part as kept_part,
    kept.tar as kept_tar,
    kept.image_offset as kept_image_offset,
    kept.stored_bytes as kept_stored_bytes,
    dropped.pair_id as dropped_pair_id,
    dropped.url as dropped_url,
    dropped.caption as dropped_caption,
    dropped.size as dropped_size,
    dropped.part as dropped_part,
    dropped.tar as dropped_tar,
    dropped.image_offset as dropped_image_offset,
    dropped.stored_bytes as dropped_stored_bytes,
from chosen
inner join images as kept on chosen.pair.kept = kept.pair_id
inner join images as dropped on chosen.pair.dropped = dropped.pair_id
order by chosen.drop_reason desc, md5(dropped.pair_id)
