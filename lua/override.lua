-- Changes what operators have put in the place of one bucket's limit, tells that one of them has changed a bucket, or what was
-- changed of late. Specified in lua/SPEC.md.
--
-- KEYS[1] the hash of all overrides. The field `version` tells of each change of them, `told` of what else others are to know
--         of, and `changes` what the latest changes were: MessagePack, a version, and then a bucket's name and the version
--         that its change made, over and over, to the present one. Every other field is the name of a bucket, its value a
--         JSON object that begins with {"expires_at_us":N, where 0 is never
-- ARGV    what is done: `put`, `remove`, `tell` or `since`; the bucket's name, or the version since which; the value to put;
--         the most overrides there may be; and then the names of buckets whose overrides have expired as far as the asker
--         knows
-- reply   the version before and the one after; nothing where there is no room to put another or nothing that could be
--         removed. Of `since` the present version, and then the name and value of each bucket that was changed, where an
--         empty one is none; nothing where that is known no longer
-- units   times are microseconds of this Redis's TIME
--
-- Atomic since the version must tell of each change, room must not be given twice, and what is told since a version must be
-- as it is at one instant. All is in one key, so that a Redis Cluster has it in one slot.
-- A version is an instant, later than the one before: after a failover that lost some, none comes again for other contents.

local call, format, match, remove = redis.call, string.format, string.match, table.remove
local hash, what, bucket, value, most = KEYS[1], ARGV[1], ARGV[2], ARGV[3], tonumber(ARGV[4])

-- So few that they are told in one piece.
local MOST_CHANGES = 32

local version = call('HGET', hash, 'version') or ''

local function latest_changes()
  local packed = call('HGET', hash, 'changes')
  local ok, changes = pcall(cmsgpack.unpack, packed or '')
  -- Whoever changed something by other means has not said so there.
  if packed and ok and type(changes) == 'table' and changes[#changes] == version then
    return changes
  end
  return { version }
end

if what == 'since' then
  local changes = latest_changes()
  for known = #changes, 1, -2 do
    if changes[known] == bucket then
      local reply = { version }
      for change = known + 1, #changes, 2 do
        reply[#reply + 1] = changes[change]
        reply[#reply + 1] = call('HGET', hash, changes[change]) or ''
      end
      return reply
    end
  end
  return false
end

local time = call('TIME')
local now = time[1] * 1000000 + time[2]

local function later_than(last)
  last = tonumber(last) or 0
  return format('%d', now > last and now or last + 1)
end

local function note_change()
  local changes, before = latest_changes(), version
  version = later_than(version)
  changes[#changes + 1] = bucket
  changes[#changes + 1] = version
  while #changes > 2 * MOST_CHANGES + 1 do
    remove(changes, 1)
    remove(changes, 1)
  end
  call('HSET', hash, 'version', version, 'changes', cmsgpack.pack(changes))
  return { before, version }
end

local function has_expired(kept)
  local expires = tonumber(match(kept, '^{"expires_at_us":(%d+)') or 0)
  return expires > 0 and expires <= now
end

-- What has expired does nothing, so that it goes is no change.
for arg = 5, #ARGV do
  -- Somebody may have put another one meanwhile.
  local kept = call('HGET', hash, ARGV[arg])
  if kept and has_expired(kept) then
    call('HDEL', hash, ARGV[arg])
  end
end

if what == 'tell' then
  call('HSET', hash, 'told', later_than(call('HGET', hash, 'told')))
  return { version, version }
end

local kept = call('HGET', hash, bucket)
if what == 'put' then
  local count = call('HLEN', hash)
  for _, name in ipairs({ 'version', 'told', 'changes' }) do
    count = count - (call('HGET', hash, name) and 1 or 0)
  end
  if count >= most and not kept then
    return false
  end
  call('HSET', hash, bucket, value)
  return note_change()
end

if not kept then
  return false
end
call('HDEL', hash, bucket)
return not has_expired(kept) and note_change()
