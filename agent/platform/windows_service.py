"""The agent as a Windows service: what the service control manager wants of its program (FR-BST-002).

``commandit-updater service`` is what it starts. Stop, shutdown and preshutdown end it; the control code 128
(``sc control commandit-updater 128``) asks for a check.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable

from agent.codes import Code
from agent.errors import AgentError
from agent.platform.win32 import (
    ERROR_CALL_NOT_IMPLEMENTED,
    ERROR_FAILED_SERVICE_CONTROLLER_CONNECT,
    ControlHandler,
    ServiceMain,
    ServiceStatus,
    ServiceTableEntry,
    Win32,
)
from agent.platform.windows_waiting import END_SECONDS, Waiting

NAME = "commandit-updater"
CHECK_CONTROL = 128
_STOP, _INTERROGATE, _SHUTDOWN, _PRESHUTDOWN = 1, 4, 5, 0xF
_ACCEPTED = 0x1 | 0x4 | 0x100
"""Stop, shutdown, preshutdown."""
_OWN_PROCESS = 0x10
_STOPPED, _START_PENDING, _STOP_PENDING, _RUNNING = 1, 2, 3, 4
_HINT_SECONDS = END_SECONDS + 10.0
_OWN_EXIT_CODE = 1066


class ServiceHost:
    """Runs the resident agent as a service."""

    def __init__(self, api: Win32, waiting: Waiting) -> None:
        self._api = api
        self._waiting = waiting
        self._status_handle = 0
        self._checkpoint = 0
        self._exit_code = 0
        self._failure: OSError | None = None
        # Held here: Windows calls them as long as the service is there.
        self._control = ControlHandler(self._on_control)

    def run(self, work: Callable[[], int]) -> int:
        """Do ``work`` as the service control manager says; return its exit code when it has ended.

        Raises ``AgentError(NOT_SUPPORTED)`` if somebody else started this, ``OSError`` if Windows refuses.
        """
        main = ServiceMain(lambda _count, _words: self._main(work))
        table = (ServiceTableEntry * 2)(ServiceTableEntry(NAME, main), ServiceTableEntry(None, ServiceMain()))
        if not self._api.advapi32.StartServiceCtrlDispatcherW(ctypes.addressof(table)):
            number = self._api.last_error()
            if number == ERROR_FAILED_SERVICE_CONTROLLER_CONNECT:
                raise AgentError(
                    Code.NOT_SUPPORTED,
                    "only Windows itself starts a service; use commandit-updater run, or install --run-as daemon",
                )
            raise self._api.failure("StartServiceCtrlDispatcherW")
        if self._failure is not None:
            raise self._failure
        return self._exit_code

    def _main(self, work: Callable[[], int]) -> None:
        handle = self._api.advapi32.RegisterServiceCtrlHandlerExW(NAME, self._control, None)
        if not handle:
            self._failure = self._api.failure("RegisterServiceCtrlHandlerExW")
            return
        self._status_handle = handle
        self._exit_code = 1
        try:
            self._report(_RUNNING)
            self._exit_code = work()
        except OSError as error:
            self._failure = error
        finally:
            self._report(_STOPPED)

    def _on_control(self, control: int, _event: int, _data: int | None, _context: int | None) -> int:
        if control in {_STOP, _SHUTDOWN, _PRESHUTDOWN}:
            self._report(_STOP_PENDING)
            self._waiting.request_end()
            return 0
        if control == CHECK_CONTROL:
            self._waiting.request_check()
            return 0
        return 0 if control == _INTERROGATE else ERROR_CALL_NOT_IMPLEMENTED

    def _report(self, state: int) -> None:
        pending = state in {_START_PENDING, _STOP_PENDING}
        self._checkpoint = self._checkpoint + 1 if pending else 0
        failed = state == _STOPPED and self._exit_code != 0
        status = ServiceStatus(
            service_type=_OWN_PROCESS,
            current_state=state,
            controls_accepted=_ACCEPTED if state == _RUNNING else 0,
            win32_exit_code=_OWN_EXIT_CODE if failed else 0,
            service_exit_code=self._exit_code if failed else 0,
            check_point=self._checkpoint,
            wait_hint=int(_HINT_SECONDS * 1000) if pending else 0,
        )
        self._api.advapi32.SetServiceStatus(self._status_handle, ctypes.pointer(status))
