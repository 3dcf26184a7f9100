-- Decides a batch of takes, each from all of its token buckets or from none. Specified in lua/SPEC.md.
--
-- KEYS    the distinct bucket keys of the batch, at most 4096 (they are unpacked onto the Lua stack)
-- ARGV    one MessagePack array of integers: the number of limits, then for each limit: tokens, period_us, burst
--         then for each take: its number of buckets, negative where the costs are returned instead of taken,
--         and for each of its buckets: key (index into KEYS), limit (index into the limits), cost in tokens
-- reply   one MessagePack array of integers: now_us, then for each take and each of its buckets: remaining tokens,
--         retry_after_us (0 where allowed, -1 where it never fits), full_after_us
--         A take was made where each of its buckets allowed it; a bucket always allows a refund.
-- value   "<credits> <unit> <at_us>": a token costs `unit` credits, `at_us` is when the credits were counted
-- units   tokens are whole; a token is worth period_us credits; times are microseconds of this Redis's TIME
--
-- Atomic since the credits that a take sees must still be there when it writes. Everything is decided before
-- anything is written: a Redis that refuses writes refuses the first, and nothing is half done.
-- Every number is an integer below 2^53, exact in a Lua number; a sum or product that may be larger is only
-- compared with one that is not, and rounding keeps that order.
-- Every client waits while this runs. Most of its time goes into objects that Lua has to make, keep and collect,
-- so numbers travel packed, there are few tables, and a number becomes text only to be written.

local match, format, call = string.match, string.format, redis.call
local KEYS = KEYS
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

local asked = cmsgpack.unpack(ARGV[1])
local tokens, period, burst = {}, {}, {}
-- How a bucket of each unit is written at this instant: all but the credits is text already.
local written = {}
local arg = 2
for limit = 1, asked[1] do
  tokens[limit], period[limit], burst[limit] = asked[arg], asked[arg + 1], asked[arg + 2]
  written[period[limit]] = format('%%d %d %d', period[limit], now)
  arg = arg + 3
end

-- What is kept of each key. Where nothing is, or nothing that counts, `credits` is false: the bucket is full.
local credits = call('MGET', unpack(KEYS))
local unit, at = {}, {}
for key = 1, #KEYS do
  local c, u, a
  if credits[key] then
    c, u, a = match(credits[key], '^(%d+) (%d+) (%d+)$')
  end
  local counts = false
  if c then
    c, u, a = c + 0, u + 0, a + 0
    counts = c < EXACT and u > 0 and u < EXACT and a < EXACT
  end
  -- 0 where there is none: arrays without gaps are quicker.
  credits[key], unit[key], at[key] = counts and c, u or 0, a or 0
end

-- Microseconds until each changed key's bucket is full: 0 where it is, nil where nothing changed.
local changed = {}
local reply, last = { now }, 1
-- The buckets of one take, as they stand.
local levels, waits = {}, {}

while arg <= #asked do
  local count = asked[arg]
  local refund = count < 0
  count = refund and -count or count
  local allowed = true

  for b = 1, count do
    local place = arg + 3 * b
    local key, limit, cost = asked[place - 2], asked[place - 1], asked[place]
    local price = period[limit]
    local capacity = burst[limit] * price
    local level = capacity
    local before = credits[key]
    if before then
      if unit[key] ~= price then
        before = convert(before, unit[key], price, burst[limit])
      end
      local earned = now > at[key] and (now - at[key]) * tokens[limit] or 0
      if earned < capacity - before then
        level = before + earned
      end
    end
    local wait = 0
    if cost > burst[limit] then
      wait = -1
    elseif cost * price > level then
      local missing = cost * price - level
      local rest = missing % tokens[limit]
      wait = (missing - rest) / tokens[limit] + (rest > 0 and 1 or 0)
    end
    if wait ~= 0 then
      allowed = false
    end
    levels[b], waits[b] = level, wait
  end

  for b = 1, count do
    local place = arg + 3 * b
    local key, limit, cost = asked[place - 2], asked[place - 1], asked[place]
    local level, wait = levels[b], waits[b]
    local price = period[limit]
    local capacity = burst[limit] * price
    -- A bucket counted in the future is kept anew even where nothing is taken: the clock went back.
    local change = credits[key] and at[key] > now
    if refund then
      wait = 0
      local returned = cost * price
      level = returned < capacity - level and level + returned or capacity
      change = change or cost > 0
    elseif allowed then
      level = level - cost * price
      change = change or cost > 0
    end
    local deficit = capacity - level
    local rest = deficit % tokens[limit]
    local full_after = (deficit - rest) / tokens[limit] + (rest > 0 and 1 or 0)
    if change and deficit > 0 then
      credits[key], unit[key], at[key], changed[key] = level, price, now, full_after
    elseif change and credits[key] then
      credits[key], changed[key] = false, 0
    end
    reply[last + 1] = (level - level % price) / price
    reply[last + 2] = wait
    reply[last + 3] = full_after
    last = last + 3
  end
  arg = arg + 1 + 3 * count
end

-- A key lives at least until its bucket is full. Both terms are rounded up to the milliseconds of PXAT.
for key = 1, #KEYS do
  local full_after = changed[key]
  if full_after and full_after > 0 then
    local rest = full_after % 1000
    local expire_ms = now_ms + (full_after - rest) / 1000 + (rest > 0 and 1 or 0)
    call('SET', KEYS[key], format(written[unit[key]], credits[key]), 'PXAT', format('%d', expire_ms))
  elseif full_after then
    call('DEL', KEYS[key])
  end
end

return cmsgpack.pack(reply)
