-- Pairs of hashes that agree under one mask and differ in few bits.
-- in   $hashes     parquet: perceptual_hash (unique)
--      $mask       bits in which they agree
--      $distance   most bits in which they differ
-- out  one, other (one < other); unique
with hashes as (
    select perceptual_hash,
    from read_parquet($hashes)
)

select one.perceptual_hash as one, other.perceptual_hash as other,
from hashes as one
inner join hashes as other
    on (one.perceptual_hash & $mask::bigint) = (other.perceptual_hash & $mask::bigint)
    and one.perceptual_hash < other.perceptual_hash
where bit_count(xor(one.perceptual_hash, other.perceptual_hash)) <= $distance
