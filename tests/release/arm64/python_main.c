/* Makes a Python interpreter of a program that embeds CPython without its command line.
 *
 * Linked into that program, it is started in place of its main function. Arguments, environment and virtual
 * environments are read by the program's own CPython; only the end of CPython's Modules/main.c is done here.
 */
#define _GNU_SOURCE
#include <Python.h>
#include <dlfcn.h>

static const char kRun[] =
    "import os, runpy, sys\n"
    "kind, what = sys.__dict__.pop('_to_run')\n"
    "if kind == 'script':\n"
    "    if not sys.flags.isolated: sys.path.insert(0, os.path.dirname(os.path.realpath(what)))\n"
    "    runpy.run_path(what, run_name='__main__')\n"
    "elif kind == 'module':\n"
    "    if not sys.flags.isolated: sys.path.insert(0, os.getcwd())\n"
    "    runpy._run_module_as_main(what)\n"
    "else:\n"
    "    if not sys.flags.isolated: sys.path.insert(0, '')\n"
    "    exec(compile(what, '<string>', 'exec'), {'__name__': '__main__'})\n";

static const wchar_t *what_to_run(const PyConfig *config, const char **kind) {
  *kind = config->run_module ? "module" : config->run_command ? "command" : "script";
  if (config->run_module) return config->run_module;
  return config->run_command ? config->run_command : config->run_filename;
}

static int python_main(int argc, char **argv, char **environment) {
  (void)environment;
  PyConfig config;
  PyConfig_InitPythonConfig(&config);
  PyStatus status = PyConfig_SetBytesArgv(&config, argc, argv);
  if (!PyStatus_Exception(status)) status = PyConfig_Read(&config);
  if (!PyStatus_Exception(status)) status = Py_InitializeFromConfig(&config);
  if (PyStatus_Exception(status)) Py_ExitStatusException(status);
  const char *kind;
  const wchar_t *what = what_to_run(&config, &kind);
  if (what == NULL) Py_FatalError("this interpreter takes -c, -m or a script");
  PyObject *to_run = Py_BuildValue("(sN)", kind, PyUnicode_FromWideChar(what, -1));
  if (to_run == NULL || PySys_SetObject("_to_run", to_run) != 0) Py_FatalError("no memory");
  Py_DECREF(to_run);
  PyConfig_Clear(&config);
  const int failed = PyRun_SimpleString(kRun);
  return Py_FinalizeEx() != 0 ? 120 : failed != 0;
}

typedef int Main(int, char **, char **);

int __libc_start_main(Main *main, int argc, char **argv, void (*init)(void), void (*fini)(void),
                      void (*rtld_fini)(void), void *stack_end) {
  (void)main;
  int (*start)(Main *, int, char **, void (*)(void), void (*)(void), void (*)(void), void *) =
      dlsym(RTLD_NEXT, "__libc_start_main");
  return start(python_main, argc, argv, init, fini, rtld_fini, stack_end);
}
