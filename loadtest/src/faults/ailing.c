/* What a process stands on, made ill while it runs: its clock and its disk. Loaded with LD_PRELOAD
 * into a node under trial. TRIAL_CONTROL names a file of `struct control`, which the trial writes;
 * TRIAL_DATA is the node's data folder, the only place whose files are touched. What was written
 * and not yet synced is kept beside the control file, so that the trial can take it back after a
 * kill: that is what a power cut does. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define PAGE 4096
#define FILES 16

struct control { /* ground.rs writes it */
    int64_t clock_ms;  /* how far the clock is off */
    int32_t slow_ms;   /* a sync takes up to so long */
    int32_t hangs;     /* no sync comes back */
    int32_t fails;     /* every sync fails */
    int32_t full;      /* no file grows */
    int32_t unsynced;  /* what a power cut would lose is kept */
};

static volatile struct control well;
static volatile struct control *control = &well;
static const char *data;
static char beside[PATH_MAX];

struct file { /* a file of the ledger, and which of its pages were written since its last sync */
    dev_t device;
    ino_t number;
    int undo;
    unsigned char *dirty;
    size_t pages;
};
static struct file files[FILES];
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

__attribute__((constructor)) static void begin(void) {
    const char *name = getenv("TRIAL_CONTROL");
    data = getenv("TRIAL_DATA");
    if (!name || !data) return;
    int fd = open(name, O_RDWR | O_CLOEXEC);
    if (fd < 0) return;
    void *map = mmap(NULL, sizeof *control, PROT_READ, MAP_SHARED, fd, 0);
    if (map != MAP_FAILED) control = map;
    close(fd);
    snprintf(beside, sizeof beside, "%s", name);
}

static const char *ours(int fd, char path[PATH_MAX]) { /* the path of a file in the data folder */
    char link[64];
    if (!data) return NULL;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, PATH_MAX - 1);
    if (length <= 0) return NULL;
    path[length] = 0;
    return strncmp(path, data, strlen(data)) == 0 ? path : NULL;
}

static int ends(const char *path, const char *with) {
    size_t have = strlen(path), want = strlen(with);
    return have >= want && strcmp(path + have - want, with) == 0;
}

#define REAL(name) \
    static __typeof__(&name) real; \
    if (!real) real = (__typeof__(&name))dlsym(RTLD_NEXT, #name)

static ssize_t put(int fd, const void *bytes, size_t count, off64_t at) {
    static ssize_t (*real)(int, const void *, size_t, off64_t);
    if (!real) real = (ssize_t (*)(int, const void *, size_t, off64_t))dlsym(RTLD_NEXT, "pwrite64");
    return real(fd, bytes, count, at);
}

static struct file *known(int fd, const char *path) { /* under the lock */
    struct stat about;
    if (fstat(fd, &about)) return NULL;
    for (int at = 0; at < FILES; at++) {
        struct file *file = &files[at];
        if (file->dirty && file->device == about.st_dev && file->number == about.st_ino) return file;
        if (file->dirty) continue;
        char undo[PATH_MAX + 32];
        snprintf(undo, sizeof undo, "%s.%d", beside, at);
        file->undo = open(undo, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
        if (file->undo < 0) return NULL;
        char head[PAGE] = {0}; /* which file it is about */
        snprintf(head, sizeof head, "%s", path);
        if (put(file->undo, head, PAGE, 0) != PAGE) return NULL;
        lseek(file->undo, PAGE, SEEK_SET);
        file->device = about.st_dev;
        file->number = about.st_ino;
        file->pages = 1024;
        file->dirty = calloc(1, file->pages);
        return file;
    }
    return NULL;
}

static void keep(struct file *file, int fd, uint64_t page) { /* what the page was at the last sync */
    if (page >= file->pages) {
        size_t more = page * 2;
        unsigned char *grown = realloc(file->dirty, more);
        if (!grown) return;
        memset(grown + file->pages, 0, more - file->pages);
        file->dirty = grown;
        file->pages = more;
    }
    if (file->dirty[page]) return;
    char record[sizeof page + PAGE] = {0};
    memcpy(record, &page, sizeof page);
    if (pread(fd, record + sizeof page, PAGE, (off_t)(page * PAGE)) < 0) return;
    if (syscall(SYS_write, file->undo, record, sizeof record) == (long)sizeof record) file->dirty[page] = 1;
}

static int grows(int fd, off64_t end) {
    struct stat about;
    return fstat(fd, &about) == 0 && S_ISREG(about.st_mode) && end > about.st_size;
}

ssize_t pwrite64(int fd, const void *bytes, size_t count, off64_t at) {
    char path[PATH_MAX];
    if (!control->full && !control->unsynced) return put(fd, bytes, count, at);
    if (!ours(fd, path)) return put(fd, bytes, count, at);
    if (control->full && grows(fd, at + (off64_t)count)) { errno = ENOSPC; return -1; }
    if (!control->unsynced || !ends(path, ".redb")) return put(fd, bytes, count, at);
    pthread_mutex_lock(&lock);
    struct file *file = known(fd, path);
    for (uint64_t page = (uint64_t)at / PAGE; file && count && page <= ((uint64_t)at + count - 1) / PAGE; page++)
        keep(file, fd, page);
    ssize_t written = put(fd, bytes, count, at);
    pthread_mutex_unlock(&lock);
    return written;
}

ssize_t write(int fd, const void *bytes, size_t count) {
    char path[PATH_MAX];
    REAL(write);
    if (control->full && ours(fd, path) && grows(fd, lseek(fd, 0, SEEK_CUR) + (off_t)count)) {
        errno = ENOSPC;
        return -1;
    }
    return real(fd, bytes, count);
}

int ftruncate64(int fd, off64_t length) {
    char path[PATH_MAX];
    REAL(ftruncate64);
    if (control->full && ours(fd, path) && grows(fd, length)) { errno = ENOSPC; return -1; }
    return real(fd, length);
}

static int synced(int fd, int (*real)(int)) {
    char path[PATH_MAX];
    if (!ours(fd, path)) return real(fd);
    int most = control->slow_ms;
    if (most > 0) {
        struct timespec now;
        clock_gettime(CLOCK_MONOTONIC, &now);
        unsigned seed = (unsigned)now.tv_nsec;
        usleep((unsigned)(rand_r(&seed) % (most * 1000)));
    }
    while (control->hangs) usleep(20000);
    if (control->fails) { errno = EIO; return -1; }
    if (!control->unsynced || !ends(path, ".redb")) return real(fd);
    pthread_mutex_lock(&lock); /* nothing is written meanwhile, so all of it is synced */
    int status = real(fd);
    struct file *file = status == 0 ? known(fd, path) : NULL;
    if (file) {
        memset(file->dirty, 0, file->pages);
        if (syscall(SYS_ftruncate, file->undo, PAGE) == 0) lseek(file->undo, PAGE, SEEK_SET);
    }
    pthread_mutex_unlock(&lock);
    return status;
}

int fsync(int fd) {
    REAL(fsync);
    return synced(fd, real);
}

int fdatasync(int fd) {
    REAL(fdatasync);
    return synced(fd, real);
}

int clock_gettime(clockid_t clock, struct timespec *now) {
    static int (*real)(clockid_t, struct timespec *);
    if (!real) real = (int (*)(clockid_t, struct timespec *))dlsym(RTLD_NEXT, "clock_gettime");
    int status = real ? real(clock, now) : (int)syscall(SYS_clock_gettime, clock, now);
    int64_t off = control->clock_ms;
    if (status == 0 && clock == CLOCK_REALTIME && off) {
        int64_t all = (int64_t)now->tv_sec * 1000000000 + now->tv_nsec + off * 1000000;
        now->tv_sec = all / 1000000000;
        now->tv_nsec = all % 1000000000;
    }
    return status;
}
