/* Writes every attempt to leave this machine to $NETWORK_LOG, and refuses it. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

static void note(const char *what, const char *where) {
  const char *path = getenv("NETWORK_LOG");
  char line[512];
  int size = snprintf(line, sizeof line, "%s %s\n", what, where);
  int file = path ? open(path, O_WRONLY | O_CREAT | O_APPEND, 0600) : -1;
  if (file >= 0) {
    if (write(file, line, size) < 0) abort();
    close(file);
  }
}

static int is_outside(const struct sockaddr *to) {
  char text[INET6_ADDRSTRLEN];
  if (!to) return 0;
  if (to->sa_family == AF_INET) {
    const struct sockaddr_in *ip = (const void *)to;
    if ((ntohl(ip->sin_addr.s_addr) >> 24) == 127) return 0;
    note("connect", inet_ntop(AF_INET, &ip->sin_addr, text, sizeof text));
    return 1;
  }
  if (to->sa_family == AF_INET6) {
    const struct sockaddr_in6 *ip = (const void *)to;
    if (IN6_IS_ADDR_LOOPBACK(&ip->sin6_addr)) return 0;
    note("connect", inet_ntop(AF_INET6, &ip->sin6_addr, text, sizeof text));
    return 1;
  }
  return 0;
}

#define REFUSE(to) do { if (is_outside(to)) { errno = ENETUNREACH; return -1; } } while (0)

int connect(int fd, const struct sockaddr *to, socklen_t size) {
  REFUSE(to);
  int (*real)(int, const struct sockaddr *, socklen_t) = dlsym(RTLD_NEXT, "connect");
  return real(fd, to, size);
}

ssize_t sendto(int fd, const void *data, size_t n, int flags, const struct sockaddr *to, socklen_t size) {
  REFUSE(to);
  ssize_t (*real)(int, const void *, size_t, int, const struct sockaddr *, socklen_t) = dlsym(RTLD_NEXT, "sendto");
  return real(fd, data, n, flags, to, size);
}

ssize_t sendmsg(int fd, const struct msghdr *message, int flags) {
  REFUSE(message->msg_name);
  ssize_t (*real)(int, const struct msghdr *, int) = dlsym(RTLD_NEXT, "sendmsg");
  return real(fd, message, flags);
}

int getaddrinfo(const char *name, const char *service, const struct addrinfo *hints, struct addrinfo **found) {
  struct in6_addr ip;
  if (name && *name && strcmp(name, "localhost") && inet_pton(AF_INET, name, &ip) != 1 && inet_pton(AF_INET6, name, &ip) != 1) {
    note("look up", name);
    return EAI_AGAIN;
  }
  int (*real)(const char *, const char *, const struct addrinfo *, struct addrinfo **) = dlsym(RTLD_NEXT, "getaddrinfo");
  return real(name, service, hints, found);
}
