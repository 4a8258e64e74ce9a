-- Creates two roles: millrace_owner owns the schema and runs `millrace migrate`; millrace_runtime runs `api`, `worker` and
-- the operator commands, and cannot change the schema.
--
-- Run it in Millrace's database before the first `millrace migrate`, as a superuser or as the owner of the database with
-- CREATEROLE. It is safe to run again:
--
--   psql -v ON_ERROR_STOP=1 "postgres://postgres@db.example.com/millrace" -f deploy/postgres/roles.sql
--
-- Then set a password for each role (\password millrace_owner), and a DATABASE_URL for each process.
-- If another role has migrated this database before, run first: REASSIGN OWNED BY that_role TO millrace_owner;

DO $$
BEGIN
    IF NOT EXISTS (SELECT FROM pg_catalog.pg_roles WHERE rolname = 'millrace_owner') THEN
        CREATE ROLE millrace_owner LOGIN;
    END IF;
    IF NOT EXISTS (SELECT FROM pg_catalog.pg_roles WHERE rolname = 'millrace_runtime') THEN
        CREATE ROLE millrace_runtime LOGIN;
    END IF;
    -- Only a member may change another role's default privileges; superusers need no membership.
    IF NOT (SELECT rolsuper FROM pg_catalog.pg_roles WHERE rolname = current_user) THEN
        GRANT millrace_owner TO CURRENT_USER;
    END IF;
    -- The owner creates the schema apalis and the trusted extensions hstore and pg_trgm. Once they exist, `migrate` needs
    -- CREATE only for a release whose changelog says so.
    EXECUTE format('GRANT CONNECT, CREATE ON DATABASE %I TO millrace_owner', current_database());
    EXECUTE format('GRANT CONNECT ON DATABASE %I TO millrace_runtime', current_database());
END $$;

GRANT USAGE, CREATE ON SCHEMA public TO millrace_owner;
GRANT USAGE ON SCHEMA public TO millrace_runtime;

-- Objects that the owner will create.
ALTER DEFAULT PRIVILEGES FOR ROLE millrace_owner GRANT USAGE ON SCHEMAS TO millrace_runtime;
ALTER DEFAULT PRIVILEGES FOR ROLE millrace_owner GRANT SELECT, INSERT, UPDATE, DELETE ON TABLES TO millrace_runtime;
ALTER DEFAULT PRIVILEGES FOR ROLE millrace_owner GRANT USAGE ON SEQUENCES TO millrace_runtime;

-- Objects that already exist.
GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO millrace_runtime;
GRANT USAGE ON ALL SEQUENCES IN SCHEMA public TO millrace_runtime;
DO $$
BEGIN
    IF EXISTS (SELECT FROM pg_catalog.pg_namespace WHERE nspname = 'apalis') THEN
        GRANT USAGE ON SCHEMA apalis TO millrace_runtime;
        GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA apalis TO millrace_runtime;
        GRANT USAGE ON ALL SEQUENCES IN SCHEMA apalis TO millrace_runtime;
    END IF;
END $$;
