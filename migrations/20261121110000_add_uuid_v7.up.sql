-- UUID of version 7 (RFC 9562): 48 bits of milliseconds, then `rand_a` with the microseconds of the last one in 4096ths
-- (section 6.2, method 3). By the database's clock, so that ids are in the order of creation whoever asks for them.
CREATE FUNCTION uuid_v7() RETURNS uuid LANGUAGE sql VOLATILE PARALLEL SAFE AS $$
    SELECT (lpad(to_hex(((us / 1000) << 16) | x'7000'::int8 | (us % 1000 * 4096 / 1000)), 16, '0')
            || substr(gen_random_uuid()::text, 20))::uuid
    FROM (SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::int8 AS us) AS clock
$$;
