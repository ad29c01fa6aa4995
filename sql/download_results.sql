-- What became of each requested image, one row per pair, in the order of pair_id.
-- in   $requests   parquet: pair_id (unique), url
--      $fetched    parquet of the backend: pair_id, key, status, error_message, width, height, original_width, original_height, sha256
--      $members    parquet: tar, key, image_offset, stored_bytes: the images in the tars
--      $originals  parquet: sha256 (unique), original_bytes, original_format, file_opt_out: the images as they came
-- out  pair_id, status ('ok' or the reason), error, width_px, height_px (as stored), original_width_px, original_height_px,
--      original_bytes, original_format (jpeg, png, ..., unknown), file_opt_out (what its XMP says against use, null = nothing),
--      sha256 (of the original bytes), tar, key, image_offset, stored_bytes, retry_after_s (what the host asked for, in seconds); unique on pair_id
-- Errors of our own start with their reason (pipeline/bounded_opener.py, polite_fetcher.py); the others are img2dataset's words.
with outcomes as (
    select
        requests.pair_id,
        fetched.key,
        fetched.error_message as error,
        case
            when fetched.status = 'success' then 'ok'
            when fetched.error_message like 'Use of image disallowed by X-Robots-Tag%' then 'opted_out_image'
            when fetched.status = 'failed_to_resize' and fetched.error_message like '%CV_IO_MAX_IMAGE_%' then 'too_many_pixels'
            when fetched.status = 'failed_to_resize' then 'not_an_image'
            else coalesce(
                nullif(
                    regexp_extract(
                        fetched.error_message,
                        '^(http_[0-9]{3}|timeout|too_large|too_many_redirects|too_many_pixels|not_an_image|blocked_hash|opted_out_image|tdm_reserved|robots|private_address|dns|connection): ',
                        1
                    ),
                    ''
                ),
                'fetch_failed'
            )
        end as status,
        fetched.width as width_px,
        fetched.height as height_px,
        fetched.original_width as original_width_px,
        fetched.original_height as original_height_px,
        fetched.sha256,
        try_cast(nullif(regexp_extract(fetched.error_message, '^http_[0-9]{3}: .*; retry after ([0-9]+) s$', 1), '') as bigint)
            as retry_after_s,
    from read_parquet($requests) as requests
    inner join read_parquet($fetched) as fetched using (pair_id)
)

select
    outcomes.pair_id,
    outcomes.status,
    outcomes.error,
    outcomes.width_px,
    outcomes.height_px,
    outcomes.original_width_px,
    outcomes.original_height_px,
    originals.original_bytes,
    originals.original_format,
    originals.file_opt_out,
    outcomes.sha256,
    members.tar,
    outcomes.key,
    members.image_offset,
    members.stored_bytes,
    outcomes.retry_after_s,
from outcomes
left join read_parquet($members) as members using (key)
left join read_parquet($originals) as originals using (sha256)
order by outcomes.pair_id
