/* Moves the wall clock of a process: .ci/at preloads this library.
 *
 * It adds CLOCK_OFFSET_S seconds to the wall clock and leaves the monotonic clocks alone. Debian's faketime cannot
 * replace it: while a process waits in a system call that faketime wraps, a signal handler sees the true time. PostgreSQL
 * compares its time-outs in such a handler, so at another date they expire at once or never. This library has no state
 * and wraps no call that waits, so a handler sees the moved time as well.
 *
 * The times of files are moved as Rust reads and sets them, by statx and futimens. Not moved: absolute times that a program
 * passes to the kernel otherwise. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static time_t offset;

__attribute__((constructor)) static void read_offset(void)
{
    const char *text = getenv("CLOCK_OFFSET_S");
    offset = text ? atol(text) : 0;
}

int clock_gettime(clockid_t clock, struct timespec *now)
{
    int result = (int)syscall(SYS_clock_gettime, clock, now);
    if (result == 0 && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE))
        now->tv_sec += offset;
    return result;
}

int gettimeofday(struct timeval *restrict now, void *restrict zone)
{
    int result = (int)syscall(SYS_gettimeofday, now, zone);
    if (result == 0)
        now->tv_sec += offset;
    return result;
}

time_t time(time_t *copy)
{
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    if (copy)
        *copy = now.tv_sec;
    return now.tv_sec;
}

int statx(int folder, const char *restrict path, int flags, unsigned int mask, struct statx *restrict file)
{
    int result = (int)syscall(SYS_statx, folder, path, flags, mask, file);
    if (result == 0) {
        file->stx_atime.tv_sec += offset;
        file->stx_btime.tv_sec += offset;
        file->stx_ctime.tv_sec += offset;
        file->stx_mtime.tv_sec += offset;
    }
    return result;
}

int futimens(int file, const struct timespec times[2])
{
    struct timespec moved[2];
    for (int i = 0; times && i < 2; i++) {
        moved[i] = times[i];
        if (times[i].tv_nsec != UTIME_NOW && times[i].tv_nsec != UTIME_OMIT)
            moved[i].tv_sec -= offset;
    }
    return (int)syscall(SYS_utimensat, file, NULL, times ? moved : NULL, 0);
}
