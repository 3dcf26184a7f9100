-- Changes what operators have put in the place of one bucket's limit, or tells that one of them has changed a bucket.
-- Specified in lua/SPEC.md.
--
-- KEYS[1] the hash of all overrides. The field `version` tells of each change; every other field is the name of a bucket,
--         its value a JSON object that begins with {"expires_at_us":N, where 0 is never
-- ARGV    what is done: `put`, `remove` or `tell`; the bucket's name; the value to put; the most overrides there may be;
--         and then the names of buckets whose overrides have expired as far as the asker knows
-- reply   1 where it was done, and 0 where there is no room to put another or nothing that could be removed
-- units   times are microseconds of this Redis's TIME
--
-- Atomic since the version must tell of each change, and room must not be given twice. All is in one key, so that a Redis
-- Cluster has it in one slot, and whoever reads it reads a table and its version as they were at one instant.
-- A version is an instant, later than the one before: after a failover that lost some, none comes again for other contents.

local call, format, match = redis.call, string.format, string.match
local hash, what, bucket, value, most = KEYS[1], ARGV[1], ARGV[2], ARGV[3], tonumber(ARGV[4])

local time = call('TIME')
local now = time[1] * 1000000 + time[2]

local function has_expired(kept)
  local expires = tonumber(match(kept, '^{"expires_at_us":(%d+)') or 0)
  return expires > 0 and expires <= now
end

for arg = 5, #ARGV do
  -- Somebody may have put another one meanwhile.
  local kept = call('HGET', hash, ARGV[arg])
  if kept and has_expired(kept) then
    call('HDEL', hash, ARGV[arg])
  end
end

local version = call('HGET', hash, 'version')
local done = 1
if what == 'put' then
  local count = call('HLEN', hash) - (version and 1 or 0)
  if count >= most and not call('HGET', hash, bucket) then
    done = 0
  else
    call('HSET', hash, bucket, value)
  end
elseif what == 'remove' then
  local kept = call('HGET', hash, bucket)
  done = kept and not has_expired(kept) and 1 or 0
  call('HDEL', hash, bucket)
end

local last = tonumber(version or 0) or 0
call('HSET', hash, 'version', format('%d', now > last and now or last + 1))
return done
