; As garbage.asm, in 64-bit mode.
%include "rom.inc"
%include "long.inc"
BYTES   equ FREE + 0x300000
main:   say "before"
        mov edi, BYTES
        mov ecx, 0x40000
        mov eax, SEED
.fill:  call random
        stosd
        loop .fill
        mov [state], eax
        jmp enter_long

random: imul eax, eax, 1664525
        add eax, 1013904223
        ret

        bits 64
main64:
again:  mov rsp, STACK
        dec dword [rounds]
        jz finish
        mov eax, [state]
        imul eax, eax, 1664525
        add eax, 1013904223
        mov [state], eax
        shr eax, 10
        and eax, 0xfffff
        add rax, BYTES
        mov dword [resume], again
        call rax
        jmp again
state:  dd 0
rounds: dd ROUNDS
        bits 32
%include "end.inc"
