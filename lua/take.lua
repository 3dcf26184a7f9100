-- Decides a batch of takes, each from all of its token buckets or from none. Specified in lua/SPEC.md.
--
-- KEYS    the distinct bucket keys of the batch, at most 4096 (they are unpacked onto the Lua stack)
-- ARGV    the number of limits, then for each limit: tokens, period_us, burst
--         then for each take: its number of buckets, negative where the costs are returned instead of taken,
--         and for each of its buckets: key (index into KEYS), limit (index into the limits), cost in tokens
-- reply   integers: now_us, then for each take: 1 where it was made, otherwise 0,
--         and for each of its buckets: outcome (0 allowed, 1 denied, 2 never fits), remaining tokens,
--         retry_after_us (0 where allowed, -1 where it never fits), full_after_us
-- value   "<credits> <unit> <at_us>": a token costs `unit` credits, `at_us` is when the credits were counted
-- units   tokens are whole; a token is worth period_us credits; times are microseconds of this Redis's TIME
--
-- Atomic since the credits that a take sees must still be there when it writes. Everything is decided before
-- anything is written: a Redis that refuses writes refuses the first, and nothing is half done.
-- Every number is an integer below 2^53, exact in a Lua number; a sum or product that may be larger is only
-- compared with one that is not, and rounding keeps that order.

local match, format, call = string.match, string.format, redis.call
local KEYS, ARGV = KEYS, ARGV
-- Below this, integers are exact. Adding 0 makes a number of a string, more quickly than tonumber.
local EXACT = 9007199254740992

-- floor(credits * to / from) for a bucket of `burst` tokens, or more than it holds where that is more: credits of
-- which a token costs `from`, in a unit of which it costs `to`.
local function convert(credits, from, to, burst)
  local product = credits * to
  if product < EXACT then
    return (product - product % from) / from
  end
  local part = credits % from
  local whole = (credits - part) / from
  if whole >= burst then
    return (burst + 1) * to
  end
  -- floor(part * to / from) bit by bit of `to`, as the product would not be exact. `rest` stays below `from`, so
  -- its double is even or below 2^53 and exact, and a sum that could reach `from` is never formed.
  local quotient, rest, bit = 0, 0, EXACT / 2
  while bit >= 1 do
    quotient, rest = quotient * 2, rest * 2
    if rest >= from then
      quotient, rest = quotient + 1, rest - from
    end
    if to % (bit * 2) >= bit then
      if rest >= from - part then
        quotient, rest = quotient + 1, rest - (from - part)
      else
        rest = rest + part
      end
    end
    bit = bit / 2
  end
  return whole * to + quotient
end

local time = call('TIME')
local now = time[1] * 1000000 + time[2]
local now_ms = (now - now % 1000) / 1000 + (now % 1000 > 0 and 1 or 0)

-- What is kept of each key. Where nothing is, or nothing that counts, `credits` is false: the bucket is full.
local credits, unit, at, kept = {}, {}, {}, {}
local values = call('MGET', unpack(KEYS))
for key = 1, #KEYS do
  local c, u, a
  if values[key] then
    c, u, a = match(values[key], '^(%d+) (%d+) (%d+)$')
  end
  local counts = false
  if c then
    c, u, a = c + 0, u + 0, a + 0
    counts = c < EXACT and u > 0 and u < EXACT and a < EXACT
  end
  kept[key], credits[key], unit[key], at[key] = counts, counts and c, u, a
end

local tokens, period, burst = {}, {}, {}
local arg = 2
for limit = 1, ARGV[1] + 0 do
  tokens[limit], period[limit], burst[limit] = ARGV[arg] + 0, ARGV[arg + 1] + 0, ARGV[arg + 2] + 0
  arg = arg + 3
end

-- Microseconds until each changed key's bucket is full: 0 where it is, nil where nothing changed.
local changed = {}
local reply, last = { now }, 1
-- The buckets of one take, as they stand.
local keys, limits, costs, levels, waits = {}, {}, {}, {}, {}

while arg <= #ARGV do
  local count = ARGV[arg] + 0
  local refund = count < 0
  count = refund and -count or count
  local allowed = true
  arg = arg + 1

  for b = 1, count do
    local key, limit, cost = ARGV[arg] + 0, ARGV[arg + 1] + 0, ARGV[arg + 2] + 0
    arg = arg + 3
    local capacity = burst[limit] * period[limit]
    local level = capacity
    if credits[key] then
      local before = credits[key]
      if unit[key] ~= period[limit] then
        before = convert(before, unit[key], period[limit], burst[limit])
      end
      local earned = now > at[key] and (now - at[key]) * tokens[limit] or 0
      if earned < capacity - before then
        level = before + earned
      end
    end
    local wait = 0
    if cost > burst[limit] then
      wait = -1
    elseif cost * period[limit] > level then
      local missing = cost * period[limit] - level
      local rest = missing % tokens[limit]
      wait = (missing - rest) / tokens[limit] + (rest > 0 and 1 or 0)
    end
    if wait ~= 0 then
      allowed = false
    end
    keys[b], limits[b], costs[b], levels[b], waits[b] = key, limit, cost, level, wait
  end

  reply[last + 1] = (allowed or refund) and 1 or 0
  last = last + 1

  for b = 1, count do
    local key, limit, cost, level, wait = keys[b], limits[b], costs[b], levels[b], waits[b]
    local capacity = burst[limit] * period[limit]
    -- A bucket counted in the future is kept anew even where nothing is taken: the clock went back.
    local change = credits[key] and at[key] > now
    if refund then
      wait = 0
      local returned = cost * period[limit]
      level = returned < capacity - level and level + returned or capacity
      change = change or cost > 0
    elseif allowed then
      level = level - cost * period[limit]
      change = change or cost > 0
    end
    local deficit = capacity - level
    local rest = deficit % tokens[limit]
    local full_after = (deficit - rest) / tokens[limit] + (rest > 0 and 1 or 0)
    if change then
      credits[key], unit[key], at[key] = deficit > 0 and level, period[limit], now
      changed[key] = full_after
    end
    reply[last + 1] = wait == 0 and 0 or wait > 0 and 1 or 2
    reply[last + 2] = (level - level % period[limit]) / period[limit]
    reply[last + 3] = wait
    reply[last + 4] = full_after
    last = last + 4
  end
end

-- A key lives at least until its bucket is full. Both terms are rounded up to the milliseconds of PXAT.
for key = 1, #KEYS do
  local full_after = changed[key]
  if full_after and full_after > 0 then
    local rest = full_after % 1000
    local expire_ms = now_ms + (full_after - rest) / 1000 + (rest > 0 and 1 or 0)
    local value = format('%.0f %.0f %.0f', credits[key], unit[key], at[key])
    call('SET', KEYS[key], value, 'PXAT', format('%.0f', expire_ms))
  elseif full_after and kept[key] then
    call('DEL', KEYS[key])
  end
end

return reply
