// SPDX-License-Identifier: GPL-2.0
/*
 * /init of a guest that runs one test: mounts what it needs, loads vkms and vgem
 * from /lib/modules, runs /NAME if the kernel command line has "selftest=NAME",
 * prints
 *
 *	boot-init: selftest exit=N
 *
 * and powers off. N is the exit code, 128 + signal if one ended the test, and
 * 124 if it took longer than "selftest_timeout=SECONDS" (120 by default).
 * With "modules=NAME,NAME" it loads these before, too.
 * With "kmemleak=on selftest_leaks=1" it looks for what the kernel has lost in the end.
 * With "selftest_only=CASE,FIXTURE.VARIANT.CASE" it runs nothing but these. What the
 * kernel does not know of its command line is in the environment of the test.
 * With "shell=1" it runs /bin/busybox sh on the console, and powers off after that.
 * Without any of these it prints "boot-init: idle" and powers off.
 *
 * With "soak=SECONDS" it runs all of "selftest=NAME,NAME" and all KUnit suites of
 * "soak_suites=NAME,NAME" in turn until the time is over, each round with another
 * seed in the environment, beginning with "soak_seed=N", and prints
 *
 *	boot-init: soak NAME round=N failed=N
 *	boot-init: soak rounds=N failed=N
 *
 * The console is shared with the kernel, which prints into the middle of other
 * people's lines. So what the test says goes into the kernel log line by line,
 * where it stands in order with what the kernel says, and survives a panic;
 * and once more, plain and in one piece, to the console after the test.
 */
#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/klog.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/utsname.h>
#include <sys/wait.h>
#include <termios.h>
#include <time.h>
#include <unistd.h>

#define TIMEOUT		120
#define TIMED_OUT	124
#define CONSOLE_TIMEOUT	60

static const char * const mounts[][2] = {
	{ "proc", "/proc" },
	{ "sysfs", "/sys" },
	{ "devtmpfs", "/dev" },
	{ "configfs", "/sys/kernel/config" },
	{ "debugfs", "/sys/kernel/debug" },
};

#define N_MOUNTS	(sizeof(mounts) / sizeof(*mounts))

static void power_off(void)
{
	fflush(stdout);
	tcdrain(1);
	sync();
	reboot(RB_POWER_OFF);
	/* not reached unless the machine cannot; a dead init is a panic */
	_exit(0);
}

static void mount_all(void)
{
	unsigned int i;

	for (i = 0; i < N_MOUNTS; i++) {
		const char *type = mounts[i][0], *where = mounts[i][1];

		mkdir(where, 0755);
		/* EBUSY: the kernel mounted it already (devtmpfs) */
		if (mount(type, where, type, 0, NULL) && errno != EBUSY)
			printf("boot-init: mount %s: %s\n", where,
			       strerror(errno));
	}
}

/* Without /dev in the initramfs, init starts with nothing open. */
static void open_console(void)
{
	int fd = open("/dev/console", O_RDWR);

	if (fd < 0)
		return;
	dup2(fd, 0);
	dup2(fd, 1);
	dup2(fd, 2);
	if (fd > 2)
		close(fd);
}

/* What is after "name=" on the kernel command line, the last one counts. */
static const char *cmdline_value(const char *name)
{
	static char line[4096];
	const char *value = NULL;
	size_t len = strlen(name);
	char *word, *state;
	FILE *file;

	file = fopen("/proc/cmdline", "r");
	if (!file)
		return NULL;
	if (!fgets(line, sizeof(line), file))
		line[0] = '\0';
	fclose(file);
	for (word = strtok_r(line, "\n ", &state); word;
	     word = strtok_r(NULL, "\n ", &state)) {
		if (!strncmp(word, name, len) && word[len] == '=')
			value = word + len + 1;
	}
	return value ? strdup(value) : NULL;
}

static long cmdline_number(const char *name, long otherwise)
{
	const char *value = cmdline_value(name);

	return value ? strtol(value, NULL, 0) : otherwise;
}

static time_t now(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec;
}

/* Is a thread that prints the kernel log to a console at work? */
static bool console_busy(void)
{
	struct dirent *entry;
	bool busy = false;
	char path[64], state;
	FILE *file;
	DIR *proc;

	proc = opendir("/proc");
	if (!proc)
		return false;
	while ((entry = readdir(proc))) {
		if (!isdigit((unsigned char)entry->d_name[0]))
			continue;
		snprintf(path, sizeof(path), "/proc/%.16s/stat", entry->d_name);
		file = fopen(path, "r");
		if (!file)
			continue;
		if (fscanf(file, "%*d (pr/%*[^)]) %c", &state) == 1 &&
		    state != 'S')
			busy = true;
		fclose(file);
	}
	closedir(proc);
	return busy;
}

/* Waits until the kernel has nothing to say any more, for a time. */
static void console_wait(void)
{
	time_t end = now() + CONSOLE_TIMEOUT;
	int quiet = 0;

	while (quiet < 5 && now() < end) {
		usleep(50000);
		quiet = console_busy() ? 0 : quiet + 1;
	}
}

static char output[1 << 20];
static size_t output_len, logged_len;

/*
 * Copies every complete line of the output that is not there yet to the log. Not
 * with dprintf(): that seeks first, which /dev/kmsg refuses.
 */
static void log_lines(int kmsg)
{
	char *newline, line[512];
	int len;

	while ((newline = memchr(output + logged_len, '\n',
				 output_len - logged_len))) {
		len = snprintf(line, sizeof(line), "test: %.*s",
			       (int)(newline - output - logged_len),
			       output + logged_len);
		if (len >= (int)sizeof(line))
			len = sizeof(line) - 1;
		if (kmsg >= 0 && write(kmsg, line, len) < 0)
			perror("boot-init: /dev/kmsg");
		logged_len = newline + 1 - output;
	}
}

/* Takes what the test has written; waits for some at most @timeout ms. */
static void collect(int from, int kmsg, int timeout)
{
	struct pollfd p = { .fd = from, .events = POLLIN };
	static char surplus[4096];
	ssize_t len;

	while (poll(&p, 1, timeout) == 1) {
		if (output_len < sizeof(output))
			len = read(from, output + output_len,
				   sizeof(output) - output_len);
		else
			len = read(from, surplus, sizeof(surplus));
		if (len <= 0) {
			usleep(1000 * timeout);
			return;
		}
		if (output_len < sizeof(output))
			output_len += len;
		log_lines(kmsg);
		timeout = 0;
	}
}

static void load_module(const char *name, const char *params)
{
	struct utsname system;
	char path[256];
	int fd;

	uname(&system);
	snprintf(path, sizeof(path), "/lib/modules/%s/%s.ko", system.release,
		 name);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return;		/* built in, or not wanted */
	if (syscall(SYS_finit_module, fd, params, 0))
		printf("boot-init: %s: %s\n", path, strerror(errno));
	close(fd);
}

/* One word of a comma separated list after the other; NULL at its end. */
static char *next_name(char **list)
{
	return *list && **list ? strsep(list, ",") : NULL;
}

static int run_test(const char *name, long timeout, const char *only)
{
	char path[256], *cases, *argv[128] = {};
	int status, kmsg, fds[2], code = TIMED_OUT;
	time_t end = now() + timeout;
	size_t n = 1;
	pid_t pid, ended;

	output_len = 0;
	logged_len = 0;
	snprintf(path, sizeof(path), "/%s", name);
	fflush(stdout);
	if (pipe(fds))
		return errno;
	pid = fork();
	if (pid < 0)
		return errno;
	if (!pid) {
		setsid();
		dup2(fds[1], 1);
		dup2(fds[1], 2);
		close(fds[0]);
		close(fds[1]);
		argv[0] = path;
		cases = strdup(only ?: "");
		while (n + 2 < sizeof(argv) / sizeof(*argv) && (name = next_name(&cases))) {
			argv[n++] = strchr(name, '.') ? "-r" : "-t";
			argv[n++] = (char *)name;
		}
		execv(path, argv);
		dprintf(2, "boot-init: %s: %s\n", path, strerror(errno));
		_exit(127);
	}
	close(fds[1]);
	kmsg = open("/dev/kmsg", O_WRONLY);

	while (code == TIMED_OUT && now() < end) {
		collect(fds[0], kmsg, 20);
		/* orphans of the test come here, too */
		while ((ended = waitpid(-1, &status, WNOHANG)) > 0) {
			if (ended != pid)
				continue;
			code = WIFEXITED(status) ? WEXITSTATUS(status) :
						   128 + WTERMSIG(status);
		}
	}
	if (code == TIMED_OUT) {
		/* not waited for: no signal may reach where it is stuck */
		kill(-1, SIGKILL);
	}
	collect(fds[0], kmsg, 200);
	close(fds[0]);
	if (kmsg >= 0)
		close(kmsg);

	if (code == TIMED_OUT)
		printf("boot-init: %s took more than %ld s\n", path, timeout);
	return code;
}

/* All that the test said, in one piece. */
static void print_output(void)
{
	console_wait();
	fwrite(output, 1, output_len, stdout);
	if (output_len && output[output_len - 1] != '\n')
		putchar('\n');
}

#define KMEMLEAK	"/sys/kernel/debug/kmemleak"
#define CONSOLE_LEVEL	8	/* for klogctl() */
#define NO_INFO		6
#define SAMPLES		4	/* the sample loses more, but stacks point to some */

/* Not on a console that the kernel shares. */
static void say_leak(int kmsg, const char *what, const char *line)
{
	char said[600];

	snprintf(said, sizeof(said), "%s%s\n", what, line);
	if (write(kmsg, said, strlen(said)) < 0)
		perror("boot-init: /dev/kmsg");
}

/*
 * What the kernel has lost since boot. It also loses something on purpose, in
 * samples/kmemleak, or a kmemleak that sees nothing would not be noticed.
 */
static void find_leaks(void)
{
	int i, fd = open(KMEMLEAK, O_WRONLY), kmsg = open("/dev/kmsg", O_WRONLY);
	int found = 0, on_purpose = 0;
	char line[512], record[8192] = "", *part;
	bool more;
	FILE *file;

	/* kmemleak's own line has the sum of both */
	klogctl(CONSOLE_LEVEL, NULL, NO_INFO);
	load_module("kmemleak-test", "");
	/* it takes two looks, and what is younger than five seconds does not count */
	for (i = 0; i < 2; i++) {
		sleep(i ? 1 : 6);
		if (write(fd, "scan", 4) < 0)
			printf("WARNING: nobody looks for leaks, kmemleak: %s\n", strerror(errno));
	}
	close(fd);
	file = fopen(KMEMLEAK, "r");
	do {
		more = file && fgets(line, sizeof(line), file);
		if (*record && (!more || !strncmp(line, "unreferenced ", 13))) {
			if (strstr(record, "kmemleak_test_init")) {
				on_purpose++;
			} else {
				found++;
				for (part = strtok(record, "\n"); part;
				     part = strtok(NULL, "\n"))
					say_leak(kmsg, "leak: ", part);
			}
			*record = '\0';
		}
		if (more)
			strncat(record, line, sizeof(record) - strlen(record) - 1);
	} while (more);
	snprintf(line, sizeof(line), "%d suspected memory leaks", found);
	if (found)
		say_leak(kmsg, "kmemleak: ", line);
	snprintf(line, sizeof(line), "%d of what was lost on purpose", on_purpose);
	if (on_purpose < SAMPLES)
		say_leak(kmsg, "WARNING: kmemleak sees ", line);
	printf("boot-init: looked for leaks, of %d made on purpose too\n", on_purpose);
}

/* Runs a suite that is built in; returns whether a case of it failed. */
static int run_suite(const char *name)
{
	char path[256], line[512];
	int fd, failed = 0, ok = 0;
	FILE *file;

	snprintf(path, sizeof(path), "/sys/kernel/debug/kunit/%s/run", name);
	fd = open(path, O_WRONLY);
	if (fd < 0 || write(fd, "1\n", 2) < 0) {
		printf("boot-init: %s: %s\n", path, strerror(errno));
		return 1;
	}
	close(fd);

	snprintf(path, sizeof(path), "/sys/kernel/debug/kunit/%s/results", name);
	file = fopen(path, "r");
	if (!file)
		return 1;
	while (fgets(line, sizeof(line), file)) {
		char *word = line + strspn(line, " ");

		failed |= !strncmp(word, "not ok ", 7);
		ok |= !strncmp(word, "ok ", 3);
	}
	fclose(file);
	return failed || !ok;
}

static void set_seed(const char *name, unsigned long seed)
{
	char text[32];

	snprintf(text, sizeof(text), "%lu", seed);
	setenv(name, text, 1);
}

static int soak(long seconds, const char *programs, const char *suites)
{
	unsigned long seed = cmdline_number("soak_seed", 1);
	long timeout = cmdline_number("selftest_timeout", TIMEOUT);
	unsigned int rounds = 0, all = 0;
	time_t end = now() + seconds;
	char *name;

	while (now() < end) {
		char *p = strdup(programs ?: ""), *s = strdup(suites ?: "");

		rounds++;
		set_seed("FENCE_UAPI_SEED", seed);
		set_seed("FENCE_FAULTS_SEED", seed);
		seed++;
		/* not to be stopped: a case that is through is worth more */
		while (now() < end && (name = next_name(&p))) {
			int code = run_test(name, timeout, NULL);

			all += !!code;
			printf("boot-init: soak %s round=%u failed=%d\n", name,
			       rounds, !!code);
			if (code == TIMED_OUT)
				return 1;
		}
		while (now() < end && (name = next_name(&s))) {
			int failed = run_suite(name);

			all += failed;
			printf("boot-init: soak %s round=%u failed=%d\n", name,
			       rounds, failed);
		}
	}
	console_wait();
	printf("boot-init: soak rounds=%u failed=%u\n", rounds, all);
	return all > 0;
}

/* A shell that has the console as its terminal, for job control. */
static void run_shell(void)
{
	pid_t pid = fork();
	int fd;

	if (!pid) {
		setsid();
		/* the console itself is the terminal of nobody */
		fd = open("/dev/ttyAMA0", O_RDWR);
		if (fd >= 0) {
			dup2(fd, 0);
			dup2(fd, 1);
			dup2(fd, 2);
			ioctl(0, TIOCSCTTY, 0);
		}
		setenv("PS1", "guest# ", 1);
		execl("/bin/busybox", "sh", "-c",
		      "/bin/busybox --install -s /bin; exec sh -i", NULL);
		perror("boot-init: /bin/busybox");
		_exit(127);
	}
	while (pid > 0 && wait(NULL) != pid)
		;
}

/* Keeps the kernel from dropping lines of the test in its log. */
static void unlimit_kmsg(void)
{
	int fd = open("/proc/sys/kernel/printk_devkmsg", O_WRONLY);

	if (fd < 0)
		return;
	if (write(fd, "on\n", 3) < 0)
		perror("boot-init: printk_devkmsg");
	close(fd);
}

int main(void)
{
	char *modules, *module;
	const char *test;
	long seconds;
	int code;

	mount_all();
	open_console();
	unlimit_kmsg();
	setvbuf(stdout, NULL, _IOLBF, 0);
	setenv("PATH", "/sbin:/bin:/usr/sbin:/usr/bin", 1);

	test = cmdline_value("selftest");
	seconds = cmdline_number("soak", 0);
	if (cmdline_value("shell")) {
		load_module("vkms", "create_default_dev=0");
		load_module("vgem", "");
		run_shell();
	} else if (test || seconds) {
		load_module("vkms", "create_default_dev=0");
		load_module("vgem", "");
		modules = (char *)cmdline_value("modules");
		while ((module = next_name(&modules)))
			load_module(module, "");
		if (seconds) {
			code = soak(seconds, test,
				    cmdline_value("soak_suites"));
		} else {
			code = run_test(test,
					cmdline_number("selftest_timeout",
						       TIMEOUT),
					cmdline_value("selftest_only"));
			if (cmdline_value("selftest_leaks"))
				find_leaks();
			print_output();
		}
		printf("boot-init: selftest exit=%d\n", code);
	} else {
		printf("boot-init: idle\n");
	}
	power_off();
}
