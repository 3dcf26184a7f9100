-- Decides a batch of takes, each from all of its token buckets or from none. Specified in lua/SPEC.md.
--
-- KEYS    the distinct bucket keys of the batch, at most 4096 (they are unpacked onto the Lua stack)
-- ARGV    one MessagePack array of integers: the number of limits, then for each limit: tokens, period_us, burst
--         then for each take: its head, and for each of its buckets: key (index into KEYS), limit (index into the
--         limits), cost in tokens. The head is the number of its buckets, plus 128 times its kind (below); negative
--         where it follows. After its buckets a lease has ttl_us and share_percent, a return tokens and lapses_at_us
-- reply   one MessagePack array of integers: now_us, then for each take and each of its buckets: remaining tokens,
--         full_after_us. A bucket that does not allow its cost has -1 - remaining tokens, full_after_us, and
--         retry_after_us, -1 where it never fits. After its buckets a lease has the tokens granted and lapses_at_us
--         A take was made where each of its buckets allowed it and the one that it follows was allowed too; a
--         bucket always allows any kind but a take.
-- value   "<credits> <unit> <at_us>": a token costs `unit` credits, `at_us` is when the credits were counted;
--         credits below 0 are a debt, and no value is a full bucket. Where tokens are leased, four more numbers
--         follow: how many credits, when they lapse, and both once more; 0 0 where there are none
-- units   tokens are whole; a token is worth period_us credits; times are microseconds of this Redis's TIME
--
-- Atomic since the credits that a take sees must still be there when it writes. Everything is decided before
-- anything is written: a Redis that refuses writes refuses the first, and nothing is half done.
-- Every number is an integer between -2^53 and 2^53, exact in a Lua number; a sum or product that may be larger is
-- only compared with one that is not, and rounding keeps that order.
-- Every client waits while this runs. Most of its time goes into objects that Lua has to make, keep and collect,
-- so numbers travel packed, there are few tables, and text becomes a number only where it has to.

local match, format, call = string.match, string.format, redis.call
local KEYS = KEYS
-- Below this, integers are exact. Adding 0 makes a number of a string, more quickly than tonumber.
local EXACT = 9007199254740992
local TAKE, REFUND, CHARGE, LEASE, RETURN = 0, 1, 2, 3, 4

-- What few runs need: other units, and leases. Made by those that do, since a function takes time to make.
local function rarely(now)
  local match, max = string.match, math.max

  -- floor(credits * to / from): credits of which a token costs `from`, in a unit of which it costs `to`. Exact between
  -- -2^53 and 2^53; what lies beyond only stays there.
  local function convert(credits, from, to)
    local amount = credits < 0 and -credits or credits
    local quotient, rest
    local product = amount * to
    if product < EXACT then
      rest = product % from
      quotient = (product - rest) / from
    else
      -- floor(part * to / from) bit by bit of `to`, as the product would not be exact. `rest` stays below `from`, so
      -- its double is even or below 2^53 and exact, and a sum that could reach `from` is never formed.
      local part = amount % from
      local bit = EXACT / 2
      quotient, rest = 0, 0
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
      quotient = (amount - part) / from * to + quotient
    end
    if credits < 0 then
      return rest > 0 and -quotient - 1 or -quotient
    end
    return quotient
  end

  -- ceil(amount / by), for amounts from 0 and below 2^53.
  local function quotient_up(amount, by)
    local rest = amount % by
    return (amount - rest) / by + (rest > 0 and 1 or 0)
  end

  -- What is kept in any unit, maybe with leases: credits, or false where it is nothing that counts; unit, at, leases.
  local function read(text)
    local c, u, a, l1, t1, l2, t2 = match(text, '^(%-?%d+) (%d+) (%d+) (%d+) (%d+) (%d+) (%d+)$')
    if not c then
      c, u, a = match(text, '^(%-?%d+) (%d+) (%d+)$')
      l1, t1, l2, t2 = 0, 0, 0, 0
    end
    if not c then
      return false, 0, 0
    end
    c, u, a, l1, t1, l2, t2 = c + 0, u + 0, a + 0, l1 + 0, t1 + 0, l2 + 0, t2 + 0
    local counts = c < EXACT and c > -EXACT and u > 0 and u < EXACT and a < EXACT
    if not counts or l1 >= EXACT or t1 >= EXACT or l2 >= EXACT or t2 >= EXACT then
      return false, 0, 0
    end
    return c, u, a, (l1 > 0 or l2 > 0) and { l1, t1, l2, t2 }
  end

  -- Credits that leases hold together.
  local function held(leases)
    local sum = leases[1] + leases[3]
    return sum < EXACT and sum or EXACT - 1
  end

  -- When the first of two leases lapses, and what both hold until then; when the other one does, and what it holds.
  local function lapses(leases)
    if leases[2] <= leases[4] then
      return leases[2], held(leases), leases[4], leases[3]
    end
    return leases[4], held(leases), leases[2], leases[1]
  end

  -- What a bucket is lacking by now that was lacking so much at an instant.
  local function still(lacks, since, rate)
    local earned = (now - since) * rate
    if earned > 0 then
      lacks = lacks - earned
    end
    return lacks > 0 and lacks or 0
  end

  -- Leases as they are now, in another unit; false where all have lapsed. And what is lacking by now of a bucket that
  -- was lacking so much when it was counted: what is leased is not earned before it has lapsed.
  local function occupy(kept, counted, from, to, rate, lacks)
    local live = { 0, 0, 0, 0 }
    for slot = 1, 3, 2 do
      local amount, lapse = kept[slot], kept[slot + 1]
      if amount > 0 and lapse > counted then
        if from ~= to then
          -- Rounded up.
          amount = -convert(-amount, from, to)
          if amount >= EXACT then
            amount = EXACT - 1
          end
        end
        -- A clock that went back takes leases with it.
        live[slot], live[slot + 1] = amount, lapse - (counted > now and counted - now or 0)
      end
    end
    local first, all, last, rest = lapses(live)
    lacks = max(still(lacks, counted, rate), still(all, first, rate), still(rest, last, rate))
    for slot = 1, 3, 2 do
      if live[slot + 1] <= now then
        live[slot], live[slot + 1] = 0, 0
      end
    end
    return (live[1] > 0 or live[3] > 0) and live, lacks
  end

  -- Microseconds until a bucket with leases lacks no more than `spare`: while they hold more, it gets no further.
  local function clears(lacks, leases, rate, spare)
    local wait = lacks > spare and quotient_up(lacks - spare, rate) or 0
    local first, all, last, rest = lapses(leases)
    if all > spare then
      wait = max(wait, (first > now and first - now or 0) + quotient_up(all - spare, rate))
    end
    if rest > spare then
      wait = max(wait, last - now + quotient_up(rest - spare, rate))
    end
    return wait < EXACT and wait or EXACT - 1
  end

  -- The most tokens of a bucket that may be leased until an instant: whole ones that it holds, and of the share of its
  -- burst what other leases have left.
  local function leasable(leases, price, full, lacks, percent, lapse)
    if leases and leases[1] > 0 and leases[3] > 0 and leases[2] ~= lapse and leases[4] ~= lapse then
      return 0
    end
    local burst = full / price
    local over = burst % 100
    local share = (burst - over) / 100 * percent + (over * percent - over * percent % 100) / 100
    local left = share * price - (leases and held(leases) or 0)
    local level = full - lacks
    left = left < level and left or level
    return left > 0 and (left - left % price) / price or 0
  end

  -- The leases with one more.
  local function add(leases, amount, lapse)
    leases = leases or { 0, 0, 0, 0 }
    local slot = (leases[2] == lapse or leases[1] == 0 and leases[4] ~= lapse) and 1 or 3
    leases[slot], leases[slot + 1] = leases[slot] + amount, lapse
    return leases
  end

  -- Takes a lease out of those that lapse with it: how much of it was there, and what is left of all, or false.
  local function remove(leases, amount, lapse)
    local slot = leases[2] == lapse and 1 or 3
    if leases[slot] == 0 or leases[slot + 1] ~= lapse then
      return 0, leases
    end
    amount = amount < leases[slot] and amount or leases[slot]
    leases[slot] = leases[slot] - amount
    if leases[slot] == 0 then
      leases[slot + 1] = 0
    end
    return amount, held(leases) > 0 and leases
  end

  return {
    convert = convert, read = read, held = held, occupy = occupy, clears = clears, leasable = leasable, add = add,
    remove = remove,
  }
end
local rare

local time = call('TIME')
local now = time[1] * 1000000 + time[2]
local now_ms = (now - now % 1000) / 1000 + (now % 1000 > 0 and 1 or 0)

local asked = cmsgpack.unpack(ARGV[1])
local tokens, period, capacity = {}, {}, {}
-- How a bucket is kept that was counted in the unit of a limit, and how one of each unit is written at this instant: all
-- but the numbers that change is text already.
local usual, written = {}, {}
local arg = 2
for limit = 1, asked[1] do
  tokens[limit], period[limit], capacity[limit] = asked[arg], asked[arg + 1], asked[arg + 2] * asked[arg + 1]
  usual[limit] = format('^(%%-?%%d+) %d (%%d+)$', period[limit])
  written[period[limit]] = format('%%d %d %d', period[limit], now)
  arg = arg + 3
end

-- What is kept of each key is read when it is asked for first: `at` is nil until then. Where nothing is kept, or nothing
-- that counts, `credits` is false: the bucket is full.
local credits = call('MGET', unpack(KEYS))
local unit, at = {}, {}
-- Where tokens of a key are leased: credits, when they lapse, and both once more. Nil where a run has no such key, as
-- most have none.
local leases

-- Microseconds until each changed key's bucket is full: 0 where it is, nil where nothing changed.
local changed = {}
local reply, last = { now }, 1
-- What the buckets of one take are short of being full, in credits: more than their capacity in debt. What is leased of
-- them.
local missing, waits, holds = {}, {}, {}
-- Whether the last take that follows none was allowed.
local led = true

-- Lua searches for an array's end each time that it is asked.
local last_arg = #asked
while arg <= last_arg do
  local count, kind = asked[arg], TAKE
  local follows = count < 0
  count = follows and -count or count
  if count > 128 then
    kind = (count - count % 128) / 128
    count = count % 128
  end
  -- After the buckets: ttl_us and share_percent of a lease, tokens and lapses_at_us of a return.
  local extra = arg + 3 * count
  local granted, lapse = 0, 0
  if kind == LEASE then
    local ttl = asked[extra + 1]
    granted, lapse = EXACT, now - now % ttl + 2 * ttl
    rare, leases = rare or rarely(now), leases or {}
  end
  local allowed = true
  -- Of the bucket that was looked at last: where a take has only one, as most have, it is not looked up again.
  local key, limit, cost, price, rate, full, counted, lacks, wait, live

  for b = 1, count do
    local place = arg + 3 * b
    key, limit, cost = asked[place - 2], asked[place - 1], asked[place]
    price, rate, full = period[limit], tokens[limit], capacity[limit]
    counted = at[key]
    if not counted then
      local c, a = false, 0
      if credits[key] then
        c, a = match(credits[key], usual[limit])
        if c then
          c, a = c + 0, a + 0
          if c < EXACT and c > -EXACT and a < EXACT then
            unit[key] = price
          else
            c, a = false, 0
          end
        else
          rare = rare or rarely(now)
          local leased
          c, unit[key], a, leased = rare.read(credits[key])
          if leased then
            leases = leases or {}
            leases[key] = leased
          end
        end
      end
      credits[key], at[key], counted = c, a, a
    end
    lacks, wait, live = 0, 0, false
    local before = credits[key]
    if before then
      if unit[key] ~= price then
        rare = rare or rarely(now)
        before = rare.convert(before, unit[key], price)
      end
      lacks = full - before
      -- A debt that could not be counted any more is forgiven.
      if lacks >= EXACT then
        lacks = EXACT - 1
      end
      if leases and leases[key] then
        live, lacks = rare.occupy(leases[key], counted, unit[key], price, rate, lacks)
      else
        local earned = (now - counted) * rate
        -- Below 0 where the clock went back.
        if earned > 0 then
          lacks = lacks - earned
        end
        if lacks < 0 then
          lacks = 0
        end
      end
    end
    if kind == TAKE then
      -- A cost of 0 asks for nothing, even of a bucket in debt.
      local short = cost * price - full + lacks
      if short > 0 and cost > 0 then
        allowed = false
        if cost * price > full then
          wait = -1
        elseif live then
          wait = rare.clears(lacks, live, rate, full - cost * price)
        else
          local rest = short % rate
          wait = (short - rest) / rate + (rest > 0 and 1 or 0)
        end
      end
    elseif kind == LEASE then
      local most = rare.leasable(live, price, full, lacks, asked[extra + 2], lapse)
      granted = math.min(granted, cost, most)
    end
    if count > 1 then
      missing[b], waits[b], holds[b] = lacks, wait, live
    end
  end

  -- A take that follows one that was denied only looks.
  local made = allowed and (led or not follows)
  if not follows then
    led = allowed
  end
  if not made then
    granted = 0
  end

  for b = 1, count do
    if count > 1 then
      local place = arg + 3 * b
      key, limit, cost = asked[place - 2], asked[place - 1], asked[place]
      price, rate, full = period[limit], tokens[limit], capacity[limit]
      counted, lacks, wait, live = at[key], missing[b], waits[b], holds[b]
    end
    -- A bucket counted in the future is kept anew even where nothing is taken: the clock went back.
    local change = counted > now
    if made and kind <= CHARGE and cost > 0 then
      change = true
      if kind == REFUND then
        lacks = cost * price < lacks and lacks - cost * price or 0
        -- A bucket has room for what it does not lease.
        if live and lacks < rare.held(live) then
          lacks = rare.held(live)
        end
      else
        lacks = lacks + cost * price
        if lacks >= EXACT then
          lacks = EXACT - 1
        end
      end
    elseif granted > 0 then
      change = true
      lacks = lacks + granted * price
      live = rare.add(live, granted * price, lapse)
    elseif made and kind == RETURN and live then
      local ended
      ended, live = rare.remove(live, asked[extra + 1] * price, asked[extra + 2])
      if ended > 0 then
        change = true
        lacks = lacks - (cost * price < ended and cost * price or ended)
        local least = live and rare.held(live) or 0
        lacks = lacks > least and lacks or least
      end
    end
    local full_after
    if live then
      full_after = rare.clears(lacks, live, rate, 0)
    else
      local rest = lacks % rate
      full_after = (lacks - rest) / rate + (rest > 0 and 1 or 0)
    end
    local level = full - lacks
    if change and lacks > 0 then
      credits[key], unit[key], at[key], changed[key] = level, price, now, full_after
      if leases then
        leases[key] = live or nil
      end
    elseif change and credits[key] then
      credits[key], changed[key] = false, 0
    end
    local remaining = level > 0 and (level - level % price) / price or 0
    if wait == 0 then
      reply[last + 1], reply[last + 2] = remaining, full_after
      last = last + 2
    else
      reply[last + 1], reply[last + 2], reply[last + 3] = -1 - remaining, full_after, wait
      last = last + 3
    end
  end
  arg = extra + 1
  if kind == LEASE then
    reply[last + 1], reply[last + 2] = granted, lapse
    last = last + 2
  end
  if kind >= LEASE then
    arg = arg + 2
  end
end

-- A key lives at least until its bucket is full. Both terms are rounded up to the milliseconds of PXAT.
for key = 1, #KEYS do
  local full_after = changed[key]
  if full_after and full_after > 0 then
    local rest = full_after % 1000
    local expire_ms = now_ms + (full_after - rest) / 1000 + (rest > 0 and 1 or 0)
    local value = format(written[unit[key]], credits[key])
    local live = leases and leases[key]
    if live then
      value = value .. format(' %d %d %d %d', live[1], live[2], live[3], live[4])
    end
    call('SET', KEYS[key], value, 'PXAT', format('%d', expire_ms))
  elseif full_after then
    call('DEL', KEYS[key])
  end
end

return cmsgpack.pack(reply)
